"""How good the cascade is: one module per table. Each has run(context) -> (results, Markdown lines)."""
