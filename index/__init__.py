"""Documents in, passages out: sources, chunking, embedding, storage, search. Knows nothing of models or pages."""
