// An application with users and sessions, around the example of docs/auth.md.
import express from "express"
import session from "express-session"

const app = express()
app.use(session({ secret: "secret", resave: false, saveUninitialized: false }))
app.get("/login/:id", (req, res) => {
  req.session.user = { id: req.params.id }
  res.sendStatus(204)
})
app.get("/logout", (req, res) => req.session.destroy(() => res.sendStatus(204)))
// EXAMPLE
app.listen(Number(process.argv[2]), "127.0.0.1")
