"""A job's options as people write them, read into the request the server takes: flags, files, hints of Ray jobs."""
