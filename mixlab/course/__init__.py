"""The course: exercises, pages, pictures, and a check of the machine."""
