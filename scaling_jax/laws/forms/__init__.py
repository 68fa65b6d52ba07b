"""One file per law. Every file here is imported and registers its law; nothing else lists them."""
