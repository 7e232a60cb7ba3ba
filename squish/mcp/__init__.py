"""Tools of other programs over the Model Context Protocol (MCP): which servers there are, a small client, and an answer
in which the model may call their tools. It is imported where tools are used, and knows no screen and no engine."""
