"""What an author writes, and what it is compiled to: steps, the builder, the frozen graph."""
