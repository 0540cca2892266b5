# The paper is compiled in its own folder, where its tables and figures are.
$do_cd = 1;
$pdf_mode = 1;
