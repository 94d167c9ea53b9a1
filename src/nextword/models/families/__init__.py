"""One file per family of models: arguments, mapping to the one decoder, tables, classes."""
