"""HTTP: one meaning in `semantics`, two lanes that serve it, `connection` and `app`."""
