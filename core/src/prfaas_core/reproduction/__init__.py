"""The paper's Tables 1 to 6 and Figure 5, computed again and compared cell by cell.

`cells` says what a cell is and how it is judged, `qualitative` holds Tables 1 to 4, `case_study_tables` Tables 5 and 6,
`figures` Figure 5 and what the paper does not show: slow links, true means, fractional roles.
"""
