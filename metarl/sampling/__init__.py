"""How experience is made: sessions, the sampler, captured steps, and where tasks come from."""
