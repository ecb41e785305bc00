-- place is where in $1, from 1, the name stands.
SELECT n.place, f.first, f.last, f.closed
FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place) JOIN rejoin.feeds f ON f.name = n.name
