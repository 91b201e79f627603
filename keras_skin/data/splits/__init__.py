"""Records divided into splits that share no patient, lesion or picture."""
