"""CLIP: towers with OpenAI's parameter names, weight loading, tokenizer."""
