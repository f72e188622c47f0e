"""The pages and tables of scripts/run_demo.sh."""
