"""DPO training of LoRA adapters, and merging. Torch is imported only inside functions, so that Dagster stays light."""
