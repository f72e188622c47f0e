"""The table of scripts/run_proxy.sh: rows, their tests, paired errors, page and picture."""
