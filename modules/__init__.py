"""From frame features to video logits: temporal heads, experts, prompts, losses."""
