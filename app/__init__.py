"""The pages people see, the command line, and the assembly of the layers below. gradio lives here only."""
