"""Properties: what must hold for any input, looked for by hypothesis and by a fuzzer."""
