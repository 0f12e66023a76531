"""Pages as a browser sees them: accessible by axe's rules, and no wider than the screen."""
