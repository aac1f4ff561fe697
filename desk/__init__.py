"""What a deployment says: one folder (a desk), the environment, and the paths that follow from both."""
