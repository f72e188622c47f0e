"""Names of tensors in other libraries' files of towers, and ours."""
