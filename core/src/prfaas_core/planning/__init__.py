"""Planning for several remote pools and several decode clusters: how many of which, which lengths where, what binds.

`fleet` says what there is, `demand` what one request asks of each pool and link, `assignment` which lengths go where
(a linear program), `sizing` how many instances, `waiting` and `latency` what requests wait, `plan` answers a goal.
"""
