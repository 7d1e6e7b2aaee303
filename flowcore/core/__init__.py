"""All meaning, as pure functions: decide what comes next, evolve what is known, admit what arrives."""
