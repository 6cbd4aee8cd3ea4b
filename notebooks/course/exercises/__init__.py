"""The graded exercises, a module a notebook. A check compares an answer with the right one and with usual mistakes."""
