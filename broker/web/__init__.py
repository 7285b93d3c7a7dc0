"""Routes in, answers out: a file an audience. Handlers parse, call one thing, and render."""
