//! Both sides of the language against each other, and against recorded servers.
