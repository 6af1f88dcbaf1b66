"""Values and rules of the domain: pure, standard library only, imported by everything, importing nothing of ours."""
