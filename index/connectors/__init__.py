"""Documents that live elsewhere, mirrored into folders of plain files that the library takes in like the desk's own."""
