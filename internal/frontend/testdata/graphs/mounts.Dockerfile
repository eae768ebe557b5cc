FROM debian:12
RUN --mount=type=secret,id=token,uid=5,mode=0440 --mount=type=secret,id=pw,env=PW cat /run/secrets/token
RUN --mount=type=tmpfs,target=/t,size=64m --mount=type=bind,rw,source=sub,target=/b true
RUN --mount=type=cache,id=x,sharing=locked,uid=7,mode=0700,target=/c --network=none true
RUN <<EOF
echo one
echo two
EOF
RUN <<EOF
#!/bin/cat
shebang
EOF
