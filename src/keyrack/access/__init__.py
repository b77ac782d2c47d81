"""Who may do what: tokens, rules, and the file that holds them. Knows neither HTTP nor engines."""
