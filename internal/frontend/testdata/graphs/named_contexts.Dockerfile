FROM alias AS a
COPY --from=extra /file /file
FROM golang:1
COPY --from=a /file /
