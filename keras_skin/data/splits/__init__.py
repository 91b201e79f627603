"""Records split into parts that share no patient, lesion or picture."""
