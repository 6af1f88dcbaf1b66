"""Our REST API over FastAPI: routes without logic, authentication, errors as problem+json."""
