"""Parts of tools.pretrain_tiny_clip: what it learns in each world, and how."""
