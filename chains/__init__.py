"""One chat turn: condense, search, route, generate, cite. LangChain lives here; gradio and files do not."""
