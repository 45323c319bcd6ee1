"""The released code's formats, in and out: the only place where names are parsed for meaning."""
