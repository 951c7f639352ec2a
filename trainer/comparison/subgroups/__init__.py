"""Does a comparison hold in every subgroup of the test images, such as each sex or hospital?"""
