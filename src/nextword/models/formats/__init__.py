"""How families are stored in each file format: settings in, arguments and weight tables out."""
