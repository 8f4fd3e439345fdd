"""What the manual is made with: code beside equations, notebooks as pages, pictures of families."""
