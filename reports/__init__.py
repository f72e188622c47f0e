"""What people look at: pages, pictures, tables, the card of a model."""
