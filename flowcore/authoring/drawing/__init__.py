"""Pictures of a described workflow: Mermaid text and SVG, plain or coloured by a run. Pure, and deterministic."""
