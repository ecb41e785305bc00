-- ?1 is a JSON array of names; place is where in it the name stands.
SELECT name.key AS place, f.first, f.last, f.closed
FROM json_each(?1) name JOIN feeds f ON f.name = name.value
