"""A table of towers, each frozen, from scripts/run_table.sh."""
