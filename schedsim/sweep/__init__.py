"""Many runs from one configuration, stored so that a sweep can be killed anywhere and go on."""
