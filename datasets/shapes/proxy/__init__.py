"""The second built-in world, in which a tuned model forgets: docs/proxy.md."""
