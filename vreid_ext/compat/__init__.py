"""Other packages' names and signatures on this one's ops."""
