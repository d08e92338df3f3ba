-- A thousand users, the same ones every time: 40 first names with 25 last names. 619 has no factor in common with
-- 1000, so every pair comes once and neighbours differ.

SET ROLE users;

INSERT INTO users (name, email, created_at)
SELECT first || ' ' || last,
       lower(first || '.' || last) || '@example.com',
       timestamptz '2024-01-01 08:00:00+00' + n * interval '13 hours 7 minutes 11 seconds'
FROM (
    SELECT n,
           (ARRAY['Ada', 'Alan', 'Amara', 'Anton', 'Beatriz', 'Bruno', 'Carla', 'Chen', 'Clara', 'Dario',
                  'Elena', 'Emil', 'Farah', 'Felix', 'Grace', 'Hana', 'Hugo', 'Ida', 'Ivan', 'Jonas',
                  'Julia', 'Karim', 'Lena', 'Leo', 'Lucia', 'Marek', 'Maria', 'Milo', 'Nadia', 'Noah',
                  'Olga', 'Omar', 'Paula', 'Petra', 'Rafael', 'Rosa', 'Samir', 'Sofia', 'Tomas', 'Yuki'
           ])[1 + pair % 40] AS first,
           (ARRAY['Abbott', 'Becker', 'Costa', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ibrahim', 'Jansen',
                  'Keller', 'Larsen', 'Moreau', 'Novak', 'Okafor', 'Petrov', 'Quinn', 'Rossi', 'Santos', 'Tanaka',
                  'Ueda', 'Varga', 'Weber', 'Yilmaz', 'Zimmer'
           ])[1 + pair / 40] AS last
    FROM (SELECT n, n * 619 % 1000 AS pair FROM generate_series(0, 999) AS n) AS numbers
) AS names
ORDER BY n;
