"""Pages: each turns events into components, and holds no decisions of the assistant."""
