"""Pages for people, served by the wide lane. They work without internet."""
