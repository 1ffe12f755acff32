from coder.main import main

main()
