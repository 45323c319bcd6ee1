"""vLLM servers that runs start when they need them, share, and leave to end by themselves. Knows no experiment."""
